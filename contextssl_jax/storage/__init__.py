"""Files on a disk or in a gs:// bucket: paths, atomic writes, bounded JSON."""
