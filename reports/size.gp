# size: bits per byte of the decoded artifact against the artifact's bytes, one point per run, and the cap.
# gnuplot -c size.gp settings.gp, in the folder of the data.
load ARG1
FIGURE = 'size'
WIDTH = 16.4
HEIGHT = 6.4
NEAR_CAP = LARGEST > 0.4 * CAP
do for [FORMAT in 'pdf png svg'] {
    load 'style.gp'
    set xlabel 'artifact (million bytes)'
    set ylabel 'BPB of the decoded artifact'
    set key outside right top vertical Left reverse
    set tmargin at screen 1.0 - 0.6 / HEIGHT
    set yrange [SIZES_LEAST : SIZES_MOST]
    set ytics nomirror step_for(SIZES_MOST - SIZES_LEAST)
    set format y format_for(SIZES_MOST - SIZES_LEAST)
    set offsets graph 0.06, graph 0.06, 0, 0
    if (NEAR_CAP) {
        set arrow 1 from first CAP / 1e6, graph 0 to first CAP / 1e6, graph 1 nohead dashtype 2 linewidth 1.2 linecolor rgb '#404040'
        set label 1 'cap 16,000,000 bytes' at first CAP / 1e6, graph 0.97 right offset character -0.6, 0 textcolor rgb '#404040'
        set xrange [* : 1.04 * (CAP > LARGEST ? CAP : LARGEST) / 1e6]
    } else {
        set label 1 sprintf('cap of 16,000,000 bytes: %.1f times the largest artifact →', CAP / LARGEST) at graph 1.0, screen 1.0 - 0.3 / HEIGHT right textcolor rgb '#404040'
    }
    plot for [v = 1:VARIANTS] 'size.tsv' index (v - 1) using ($1 / 1e6):2 with points pointtype shape(v) pointsize 0.8 linecolor rgb colour(v) title NAME[v]
    unset output
}
