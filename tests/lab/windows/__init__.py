"""A Windows guest agent of a given version, as a program: in process for quick tests, or behind a real guest for libvirt."""
