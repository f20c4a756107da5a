# looks: t of each comparison at its declared looks, and the boundaries at which it stops; the axis is asinh(t), because
# early boundaries are far out; a t without bound stands at the edge.
# gnuplot -c looks.gp settings.gp, in the folder of the data.
load ARG1
FIGURE = 'looks'
WIDTH = 16.4
HEIGHT = 6.6
LETTERS = strlen('boundary') # or of the longest name
do for [r = 2:ROWS] { LETTERS = strlen(ROW[r]) > LETTERS ? strlen(ROW[r]) : LETTERS }
do for [FORMAT in 'pdf png svg'] {
    load 'style.gp'
    set xlabel 'paired seeds'
    set ylabel 't of the differences'
    set xrange [1.5 : LOOK_LAST + 0.5]
    set yrange [-asinh(LOOK_TOP) : asinh(LOOK_TOP)]
    set ytics nomirror ('0' 0)
    do for [tick in LOOK_TOP > 300 ? '1 10 100 1000 10000 100000 1000000' : LOOK_TOP > 30 ? '1 3 10 30 100' : '1 2 5 10 20'] {
        set ytics add (tick asinh(tick + 0), '−' . tick -asinh(tick + 0))
    }
    set xtics nomirror 1
    if (LOOK_LAST > 20) { set xtics autofreq }
    set rmargin at screen legend_left(LETTERS) - 0.015
    set key at screen legend_left(LETTERS), graph 1 left top vertical Left reverse
    set arrow 1 from graph 0, first 0 to graph 1, first 0 nohead linewidth 0.8 linecolor rgb '#404040'
    plot 'looks.tsv' index 0 using 1:(asinh($2)) with linespoints linewidth 1.6 pointtype 2 pointsize 0.5 linecolor rgb '#404040' title 'boundary', \
         'looks.tsv' index 0 using 1:(-asinh($2)) with linespoints linewidth 1.6 pointtype 2 pointsize 0.5 linecolor rgb '#404040', \
         for [r = 2:ROWS] 'looks.tsv' index (r - 1) using 1:(asinh($2)) with linespoints linewidth 1.2 dashtype dash(r) pointtype shape(r) pointsize 0.6 linecolor rgb colour(r) title ROW[r], \
         for [r = 2:ROWS] 'looks.tsv' index (r - 1) using ($3 == 1 ? $1 : NaN):(asinh($2)) with points pointtype 6 pointsize 1.6 linewidth 1.4 linecolor rgb '#404040'
    unset output
}
