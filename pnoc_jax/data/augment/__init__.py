"""What is done to one training image: resizing, cropping, mirroring, colours, mixing."""
