"""The compiled core's face: tag selectors, policy matching, digests and version maps."""
