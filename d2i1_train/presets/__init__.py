"""Presets: settings in YAML files; `--config NAME` finds them. See `presets.files`."""
