"""Minicanvas, the bundled world: objects x styles plus identities, drawn, captioned and split by this package."""
