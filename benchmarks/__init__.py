"""How fast the reference saves, against what users would pick instead and against the disk.

``python -m benchmarks`` measures, ``--scale`` computes what one machine cannot show. The numbers
are kept as JSON; the page and the plots in ``docs/results/`` are made from them alone.
"""
