"""The paper's tables and figures: its rows beside what is measured here, and the small models.

table1 ... table7, fig1, fig8 and fig9 are commands; all else here is what they share.
"""
