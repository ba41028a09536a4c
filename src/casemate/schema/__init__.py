"""Schema: the papers that cross a process or a trust boundary, one file each, frozen."""
