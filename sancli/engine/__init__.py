"""Training and measuring that know nothing about SAN or about folders."""
