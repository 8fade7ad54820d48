"""Number formats: `spec` names them (no torch), `codec` and its siblings are their mathematics."""
