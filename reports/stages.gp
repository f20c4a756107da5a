# stages: BPB of the raw weights, the averaged weights and the decoded artifact, each seed a point, with the unigram
# model as reference behind a broken axis when it is far off. gnuplot -c stages.gp settings.gp, in the folder of the data.
load ARG1
FIGURE = 'stages'
WIDTH = 16.4
HEIGHT = 2.6 + 0.85 * VARIANTS
LEFT = 0.035 + 0.0108 * LONGEST
BREAK = BROKEN ? 0.83 : 0.975
do for [FORMAT in 'pdf png svg'] {
    load 'style.gp'
    set multiplot
    set yrange [VARIANTS + 0.6 : 0.4]
    set tmargin at screen 1.0 - 0.85 / HEIGHT
    set bmargin at screen 1.15 / HEIGHT
    set ytics nomirror (tick(NAME[1]) 1)
    set for [i = 2:VARIANTS] ytics add (tick(NAME[i]) i)
    set lmargin at screen LEFT
    set rmargin at screen BREAK
    set xrange [STAGES_LEAST : STAGES_MOST]
    set xtics step_for(STAGES_MOST - STAGES_LEAST)
    set format x format_for(STAGES_MOST - STAGES_LEAST)
    set xlabel 'bits per byte'
    set key at screen LEFT, screen 1.0 - 0.3 / HEIGHT left center horizontal Left reverse maxrows 1 samplen 1.5
    if (UNIGRAM > 0 && !BROKEN) {
        set label 2 'unigram' at first UNIGRAM, screen 1.0 - 0.62 / HEIGHT center textcolor rgb '#404040'
        set arrow 1 from first UNIGRAM, graph 0 to first UNIGRAM, graph 1 nohead dashtype 2 linewidth 1.4 linecolor rgb '#404040'
    }
    do for [v = 1:VARIANTS] {
        if (STAGES_BEYOND[v] ne '') { set label 9 + v STAGES_BEYOND[v] at graph 0.99, first v right front boxed textcolor rgb '#404040' }
    }
    plot 'stages.tsv' using 2:($1 - 0.22) with points pointtype 6 pointsize 0.7 linewidth 1.2 linecolor rgb colour(3) title 'raw weights', \
         'stages.tsv' using 3:1 with points pointtype 4 pointsize 0.65 linewidth 1.2 linecolor rgb colour(2) title 'averaged', \
         'stages.tsv' using 4:($1 + 0.22) with points pointtype 7 pointsize 0.7 linecolor rgb colour(1) title 'decoded artifact'
    if (BROKEN) {
        set lmargin at screen BREAK + 0.02
        set rmargin at screen 0.975
        set border 1
        unset key
        unset xlabel
        unset ytics
        do for [v = 1:VARIANTS] { if (STAGES_BEYOND[v] ne '') { unset label 9 + v } }
        set xtics nomirror (sprintf('%.3f', UNIGRAM) UNIGRAM)
        set xrange [UNIGRAM - 1 : UNIGRAM + 1]
        set label 1 '//' at screen BREAK + 0.01, screen 1.15 / HEIGHT center
        set label 2 'unigram' at first UNIGRAM, screen 1.0 - 0.62 / HEIGHT center textcolor rgb '#404040'
        set arrow 1 from first UNIGRAM, graph 0 to first UNIGRAM, graph 1 nohead dashtype 2 linewidth 1.4 linecolor rgb '#404040'
        plot NaN
    }
    unset multiplot
    unset output
}
