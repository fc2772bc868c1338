"""The step `deploy`: publish a version, verify it in a real server, make it the champion."""
