"""Captioning: captions of images by a model of transformers, and new captions from captions."""
