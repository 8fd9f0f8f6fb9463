"""X.509 on the grid: certificates and their proxies, VOMS attributes, delegation."""
