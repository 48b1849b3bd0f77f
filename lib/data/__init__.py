"""Data: synthetic people, COCO files, augmentation and the dataset that feeds a network."""
