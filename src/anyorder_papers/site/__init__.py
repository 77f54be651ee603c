"""The web site of the catalogue, served with votes and a digest, or exported as static files."""
