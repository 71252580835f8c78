"""How hosts are spoken to: OpenSSH, plays for Windows gateways, the answers of the release tool."""
