"""From a configuration to what KFP runs: arguments, placement, uploads, images, and the compiled pipeline."""
