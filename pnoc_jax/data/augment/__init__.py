"""The changes of one training image: resizing, cropping, mirroring, colours, mixing."""
