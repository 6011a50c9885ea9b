"""What everything else stands on, and what knows no model.

`config_files`, `schema`, `build` and `kinds` go from a config to checked constructors; `mesh`,
`cluster` and `processes` say which device and process does what; `checkpoint`, `weights` and
`files` write whole files or none; `log` and `progress` say how far a run is.
"""
