"""Reports of evaluated checkpoints: tables, pages, comparisons, and the command for them."""
