#Requires -RunAsAdministrator
#Requires -Version 5.1
<#
.SYNOPSIS
Prepares a Windows host for the deployment: OpenSSH server, key only, a local administrator, PowerShell as shell.

.DESCRIPTION
Run once on the host, as Administrator. May be repeated. Prints the line for the controller's known_hosts file.

.PARAMETER PublicKey
The controller's public SSH key, one line: "ssh-ed25519 AAAA... comment".

.PARAMETER User
The local administrator that the deployment logs in as.

.PARAMETER Controller
Address of the controller; until the baseline role has set its own rules, SSH is open to this address only.

.PARAMETER Psrp
Also enable PowerShell Remoting over HTTPS (port 5986) with a self-signed certificate, the second choice.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [ValidatePattern('^(ssh-ed25519|ecdsa-sha2-nistp256) [A-Za-z0-9+/=]+( .*)?$')] [string] $PublicKey,
    [Parameter(Mandatory)] [ipaddress] $Controller,
    [ValidatePattern('^[A-Za-z][A-Za-z0-9-]{0,19}$')] [string] $User = 'ops',
    [switch] $Psrp
)
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

Write-Output '1 of 5: OpenSSH server'
$capability = Get-WindowsCapability -Online -Name 'OpenSSH.Server*' | Select-Object -First 1
if ($capability.State -ne 'Installed') { Add-WindowsCapability -Online -Name $capability.Name | Out-Null }
Start-Service sshd  # writes host keys and sshd_config at its first start
Set-Service sshd -StartupType Automatic

Write-Output '2 of 5: user'
if (-not (Get-LocalUser -Name $User -ErrorAction SilentlyContinue)) {
    # Nobody knows this password: the user comes in by key.
    $bytes = New-Object byte[] 24
    [System.Security.Cryptography.RandomNumberGenerator]::Create().GetBytes($bytes)
    $password = ConvertTo-SecureString ('Aa1-' + [Convert]::ToBase64String($bytes)) -AsPlainText -Force
    New-LocalUser -Name $User -Password $password -PasswordNeverExpires -Description 'MT5-CRS deployment' | Out-Null
}
$administrators = Get-LocalGroup -SID 'S-1-5-32-544'
if (-not (Get-LocalGroupMember $administrators | Where-Object { $_.Name -like "*\$User" })) {
    Add-LocalGroupMember -Group $administrators -Member $User
}

Write-Output '3 of 5: key'
$keys = Join-Path $env:ProgramData 'ssh\administrators_authorized_keys'
if (-not (Test-Path $keys)) { New-Item -ItemType File -Path $keys | Out-Null }
icacls.exe $keys /inheritance:r /grant '*S-1-5-32-544:F' '*S-1-5-18:F' | Out-Null
if ($LASTEXITCODE -ne 0) { throw "the rights of $keys could not be set" }
if ((Get-Content $keys) -notcontains $PublicKey) { Add-Content -Path $keys -Value $PublicKey -Encoding ascii }

Write-Output '4 of 5: key only, PowerShell as shell'
$config = Join-Path $env:ProgramData 'ssh\sshd_config'
$lines = @(Get-Content $config | Where-Object { $_ -notmatch '^\s*#?\s*(PasswordAuthentication|KbdInteractiveAuthentication)\b' })
# Global settings must stand before the first Match block.
Set-Content -Path $config -Encoding ascii -Value (@('PasswordAuthentication no', 'KbdInteractiveAuthentication no') + $lines)
New-ItemProperty -Path 'HKLM:\SOFTWARE\OpenSSH' -Name DefaultShell -PropertyType String -Force `
    -Value "$env:SystemRoot\System32\WindowsPowerShell\v1.0\powershell.exe" | Out-Null
Restart-Service sshd

Write-Output '5 of 5: firewall'
Get-NetFirewallRule -Name 'OpenSSH-Server-In-TCP' -ErrorAction SilentlyContinue |
    Set-NetFirewallRule -RemoteAddress $Controller.ToString() -Profile Any -Enabled True

if ($Psrp) {
    Enable-PSRemoting -Force -SkipNetworkProfileCheck | Out-Null
    $certificate = New-SelfSignedCertificate -DnsName $env:COMPUTERNAME -CertStoreLocation Cert:\LocalMachine\My
    if (-not (Get-ChildItem WSMan:\localhost\Listener | Where-Object { $_.Keys -contains 'Transport=HTTPS' })) {
        New-Item -Path WSMan:\localhost\Listener -Transport HTTPS -Address * -CertificateThumbPrint $certificate.Thumbprint -Force | Out-Null
    }
    Get-ChildItem WSMan:\localhost\Listener | Where-Object { $_.Keys -contains 'Transport=HTTP' } | Remove-Item -Recurse -Force
    New-NetFirewallRule -DisplayName 'mt5crs PSRP' -Direction Inbound -Protocol TCP -LocalPort 5986 -RemoteAddress $Controller.ToString() | Out-Null
}

$type, $key = (Get-Content (Join-Path $env:ProgramData 'ssh\ssh_host_ed25519_key.pub')).Split(' ')[0, 1]
Write-Output ''
Write-Output "Ready. Add this line to the controller's known_hosts file, with the host's address:"
Write-Output "<address> $type $key"
