"""The lab: real libvirt guests, built from Debian packages. `python -m tests.lab up` starts one for hand work."""
