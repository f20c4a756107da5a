# curves: the training loss of every training, mean over the seeds and the band from least to most.
# gnuplot -c curves.gp settings.gp, in the folder of the data.
load ARG1
FIGURE = 'curves'
WIDTH = 16.4
HEIGHT = 6.6
LETTERS = 0 # of the longest name
do for [c = 1:CURVES] { LETTERS = strlen(CURVE[c]) > LETTERS ? strlen(CURVE[c]) : LETTERS }
do for [FORMAT in 'pdf png svg'] {
    load 'style.gp'
    set xlabel 'step'
    set ylabel 'training loss (nats per token)'
    if (CURVES > 5) {
        set rmargin at screen legend_left(LETTERS) - 0.015
        set key at screen legend_left(LETTERS), graph 1 left top vertical Left reverse
    } else { set key top right Left reverse }
    set yrange [LOSS_LEAST : LOSS_MOST]
    set ytics nomirror step_for(LOSS_MOST - LOSS_LEAST)
    set format y format_for(LOSS_MOST - LOSS_LEAST)
    plot for [c = 1:CURVES] 'curves.tsv' index (c - 1) using 1:3:4 with filledcurves fillcolor rgb colour(c) fillstyle transparent solid 0.22 noborder, \
         for [c = 1:CURVES] 'curves.tsv' index (c - 1) using 1:2 with lines linewidth 1.6 linecolor rgb colour(c) dashtype dash(c) title CURVE[c]
    unset output
}
