"""Training several tasks together, with one encoder and a head for each; see README.md here."""
