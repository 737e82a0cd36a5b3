"""Reports of runs: tables in, figures and one HTML page out.

`reports.plots.draw(plot, model)` draws, `reports.page.render(subjects)` writes the page. A run is a plain
dict (see `reports.run`); nothing here reads files, weights or other packages of this project.
"""
