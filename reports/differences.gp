# differences: left, every seed as one line across the variants; right, a forest of the differences, each with its own
# interval (thick) and the one that holds for all of them together (thin).
# gnuplot -c differences.gp settings.gp, in the folder of the data.
load ARG1
FIGURE = 'differences'
WIDTH = 16.4
HEIGHT = 2.9 + 0.62 * ROWS
LEFT = 0.035 + 0.0108 * LONGEST
MIDDLE = LEFT + (0.975 - LEFT) * 0.53
do for [FORMAT in 'pdf png svg'] {
    load 'style.gp'
    set datafile missing # a seed without a value breaks its line
    set multiplot
    set yrange [ROWS + 0.6 : 0.4]
    set tmargin at screen 1.0 - 0.85 / HEIGHT
    set bmargin at screen 1.15 / HEIGHT
    set ytics nomirror (tick(ROW[1]) 1)
    set for [i = 2:ROWS] ytics add (tick(ROW[i]) i)
    set lmargin at screen LEFT
    set rmargin at screen MIDDLE - 0.025
    set xrange [VALUES_LEAST : VALUES_MOST]
    set xtics step_for(VALUES_MOST - VALUES_LEAST)
    set format x format_for(VALUES_MOST - VALUES_LEAST)
    set xlabel METRIC
    set key at screen LEFT, screen 1.0 - 0.3 / HEIGHT left center horizontal Left reverse maxrows 2 samplen 1.5
    # What lies beyond the axis says so at its edge.
    do for [i = 1:ROWS] {
        if (strstrt(MEAN_BEYOND[i], '→')) { set label 9 + i MEAN_BEYOND[i] at graph 0.99, first i right front boxed textcolor rgb colour(1) }
        if (strstrt(MEAN_BEYOND[i], '←')) { set label 9 + i MEAN_BEYOND[i] at graph 0.01, first i left front boxed textcolor rgb colour(1) }
    }
    TOLD = SEEDS <= TOLD_SEEDS ? SEEDS : 0 # seeds that have a shape and a name of their own
    plot for [s = 1:TOLD] 'seeds.tsv' every :::(s - 1)::(s - 1) using ($2):1 with linespoints linewidth 0.9 linecolor rgb '#9a9a9a' \
             pointtype hollow(s) pointsize 0.55 title SEED[s], \
         (TOLD ? '/dev/null' : 'seeds.tsv') using ($2):1 with linespoints linewidth 0.9 linecolor rgb '#9a9a9a' pointtype 6 pointsize 0.4, \
         'means.tsv' using 2:1 with points pointtype 2 pointsize 0.75 linewidth 2.2 linecolor rgb colour(1) title 'mean'
    do for [i = 1:ROWS] {
        if (MEAN_BEYOND[i] ne '') { unset label 9 + i }
        if (strstrt(DIFFERENCE_BEYOND[i], '→')) { set label 9 + i DIFFERENCE_BEYOND[i] at graph 0.99, first i right front boxed textcolor rgb colour(2) }
        if (strstrt(DIFFERENCE_BEYOND[i], '←')) { set label 9 + i DIFFERENCE_BEYOND[i] at graph 0.01, first i left front boxed textcolor rgb colour(2) }
    }
    set lmargin at screen MIDDLE + 0.025
    set rmargin at screen 0.975
    set ytics nomirror ('' 1)
    set for [i = 2:ROWS] ytics add ('' i)
    set xlabel 'difference from the baseline (' . INTERVAL . ')'
    unset key
    if (MARGIN > 0) {
        set object 1 rectangle from first -MARGIN, graph 0 to first MARGIN, graph 1 behind fillstyle solid noborder fillcolor rgb '#e6eef7'
        set label 1 'margin ±' . sprintf('%g', MARGIN) at first 0, screen 1.0 - 0.55 / HEIGHT center textcolor rgb '#5a7fa8'
    }
    set arrow 1 from first 0, graph 0 to first 0, graph 1 nohead linewidth 0.8 linecolor rgb '#404040'
    set xrange [DIFFERENCES_LEAST : DIFFERENCES_MOST]
    set xtics step_for(DIFFERENCES_MOST - DIFFERENCES_LEAST)
    set format x format_for(DIFFERENCES_MOST - DIFFERENCES_LEAST)
    plot 'differences.tsv' using 2:1:5:6 with xerrorbars pointtype 7 pointsize 0.1 linewidth 0.8 linecolor rgb colour(2), \
         'differences.tsv' using 2:1:3:4 with xerrorbars pointtype 7 pointsize 0.7 linewidth 2.2 linecolor rgb colour(2)
    unset multiplot
    unset output
}
