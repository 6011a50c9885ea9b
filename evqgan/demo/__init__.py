"""The web page of a model: generate, inpaint, outpaint, change the class, reconstruct.

`studio` does what the tabs ask for, in plain functions of arrays and numbers; `page` and the tabs
lay it out with Gradio, which they alone import; `results` writes the files of what was made;
`server` starts it. Whatever comes from a browser is checked in `uploads`, `choices` and `studio`,
and never trusted.
"""
