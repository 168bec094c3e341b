"""Tests of the core and the session; they need no WebUI and no downloaded model."""
