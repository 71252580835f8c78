"""A host in a directory for tests of the release tool: real tool, real files, a scripted ``systemctl``."""
