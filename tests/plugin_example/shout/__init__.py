"""An example of everything that plugs into SMMF."""
