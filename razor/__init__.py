"""RAZOR Studio, the library: targeted unlearning by editing a few attention heads. See README.md."""
