"""One module per model family: how the library sees a model."""
