"""The page's widgets and panels: what a visitor sees and touches."""
