"""From what a request shows to the caller it comes from: tokens, certificates, roles."""
