"""Other people's layouts of labelled images, and how the `folder` layout is made from them."""
