"""The service of a site: enrolment, channels, keys, directory, revocation."""
