"""What stages share: settings, networks, the trainer, inference image by image, maps and CRF."""
