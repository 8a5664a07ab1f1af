"""The SMTP edge: session, data reader, TLS, limits. aiosmtpd is met in this package only."""
