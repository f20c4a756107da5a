# slopes: a panel for each comparison; every seed is a line from the baseline to the variant. Better is dark, worse grey
# and dashed. gnuplot -c slopes.gp settings.gp, in the folder of the data.
load ARG1
FIGURE = 'slopes'
ACROSS = PANELS < 3 ? 3 : PANELS < 5 ? PANELS : 5
DOWN = (PANELS + ACROSS - 1) / ACROSS
WIDTH = 16.4
ROW = 4.9 # title, panel, names of the tics, and room to the next title
HEIGHT = 0.3 + ROW * DOWN
# A title as wide as its panel: a longer one has two lines, parted after a space, a hyphen or [U+...] if it can be.
TITLE = ACROSS == 3 ? 28 : ACROSS == 4 ? 20 : 15
parting(name, k) = k < 1 || k < strlen(name) - TITLE ? TITLE : strstrt(' -]', name[k:k]) ? k : parting(name, k - 1)
title_of(name) = strlen(name) <= TITLE ? name : name[1:parting(name, TITLE)] . "\n" . name[parting(name, TITLE) + 1:*]
better(from, to) = HIGHER ? to > from : to < from
do for [FORMAT in 'pdf png svg'] {
    load 'style.gp'
    set multiplot
    unset key
    set grid noxtics ytics
    set xrange [0.75 : 2.25]
    set xtics ('baseline' 1, 'variant' 2)
    set yrange [VALUES_LEAST : VALUES_MOST]
    set ytics nomirror step_for(VALUES_MOST - VALUES_LEAST)
    do for [k = 1:PANELS] {
        column_of = (k - 1) % ACROSS
        row_of = (k - 1) / ACROSS
        set lmargin at screen 0.085 + column_of * 0.905 / ACROSS
        set rmargin at screen 0.085 + (column_of + 1) * 0.905 / ACROSS - 0.015
        set tmargin at screen 1.0 - (0.75 + row_of * ROW) / HEIGHT
        set bmargin at screen 1.0 - (0.75 + row_of * ROW + 3.2) / HEIGHT
        set label 1 title_of(PANEL[k]) at graph 0.5, screen 1.0 - (0.4 + row_of * ROW) / HEIGHT center noenhanced
        set label 2 PANEL_BEYOND[k] at graph 0.98, graph 0.05 right textcolor rgb '#404040'
        if (column_of == 0) { set ylabel METRIC; set format y format_for(VALUES_MOST - VALUES_LEAST) } else { unset ylabel; set format y '' }
        plot 'slopes.tsv' index (k - 1) using (1):(better($1, $2) ? $1 : NaN):(1):($2 - $1) with vectors nohead linewidth 1.3 linecolor rgb colour(1), \
             'slopes.tsv' index (k - 1) using (1):(better($1, $2) ? NaN : $1):(1):($2 - $1) with vectors nohead linewidth 1.3 dashtype 2 linecolor rgb colour(3), \
             'slopes.tsv' index (k - 1) using (1):1 with points pointtype 7 pointsize 0.45 linecolor rgb colour(3), \
             'slopes.tsv' index (k - 1) using (2):2 with points pointtype 7 pointsize 0.45 linecolor rgb colour(2)
    }
    unset multiplot
    unset output
}
