"""What a run's report is made of: read -> facts -> sections -> Markdown and one HTML page.

read.py      a run folder: its options, its stages, only the columns asked for
measures.py  numbers from tables: self-correction, accuracy by role, values, losses; pure
trees.py     which problems to show, and the data of the page's tree viewer; pure
facts.py     `gather(folder)`: all of the above as one plain dict
sections.py  the facts as titled tables of strings, the same for both formats
page.py      `html(facts)`, from report.html.j2, report.css, viewer.js and the pictures of svg.py
"""
