"""Files on disk or in Google Cloud Storage: paths, atomic writes, safe JSON."""
