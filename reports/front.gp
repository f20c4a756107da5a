# front: bits per byte of the decoded artifact against its bytes and against the training time: a point per run (of the first seeds, if many), the mean
# of each variant with one sd both ways, and the line of the variants that no other beats in both.
# gnuplot -c front.gp settings.gp, in the folder of the data.
load ARG1
FIGURE = 'front'
WIDTH = 16.4
LINES = (VARIANTS + 2) / 3
HEIGHT = 6.4 + 0.42 * LINES
column_of(v) = (v - 1) % 3
line_of(v) = (v - 1) / 3 + 0.5
NEAR_CAP = LARGEST > 0.4 * CAP
wide(least, most) = most > least ? most - least : 0.01 * abs(most) + 1e-9
# From the least to the most of the runs and of what the bars of the means reach.
stats 'front.tsv' using ($1 / 1e6) nooutput name 'BYTES'
stats 'front.tsv' using 2 nooutput name 'SECONDS'
stats 'front_means.tsv' using (($2 - $3) / 1e6):(($2 + $3) / 1e6) nooutput name 'BYTE_BARS'
stats 'front_means.tsv' using ($4 - $5):($4 + $5) nooutput name 'SECOND_BARS'
lesser(x, y) = x < y ? x : y
greater(x, y) = x > y ? x : y
SMALLEST = lesser(BYTES_min, greater(0, BYTE_BARS_min_x))
FASTEST = lesser(SECONDS_min, greater(0, SECOND_BARS_min_x))
SLOWEST = greater(SECONDS_max, SECOND_BARS_max_y)
do for [FORMAT in 'pdf png svg'] {
    load 'style.gp'
    set multiplot
    # The legend is a plot of its own, as wide as both panels: three names a line, however wide.
    set lmargin at screen 0.03
    set rmargin at screen 0.985
    set tmargin at screen 1.0 - 0.1 / HEIGHT
    set bmargin at screen 1.0 - (0.1 + 0.42 * LINES) / HEIGHT
    unset border
    unset tics
    unset grid
    set xrange [0 : 3]
    set yrange [LINES : 0]
    unset key
    do for [v = 1:VARIANTS] { set label v NAME[v] at first column_of(v) + 0.05, first line_of(v) left textcolor rgb '#202020' noenhanced }
    plot for [v = 1:VARIANTS] 'front_means.tsv' every ::(v - 1)::(v - 1) using (column_of(v) + 0.02):(line_of(v)) with points pointtype shape(v) pointsize 0.8 linecolor rgb colour(v)
    unset label
    set border 3 linewidth 0.6 linecolor rgb '#404040'
    set tics nomirror out scale 0.5
    set xtics nomirror
    set grid xtics ytics linewidth 0.5 linecolor rgb '#d4d4d4' dashtype 1
    set xrange [* : *]
    set tmargin at screen 1.0 - (0.75 + 0.42 * LINES) / HEIGHT
    set bmargin at screen 1.15 / HEIGHT
    set yrange [SIZES_LEAST : SIZES_MOST]
    set ytics nomirror step_for(SIZES_MOST - SIZES_LEAST)
    set format y format_for(SIZES_MOST - SIZES_LEAST)
    set lmargin at screen 0.085
    set rmargin at screen 0.52
    set xlabel 'artifact (million bytes)'
    most = greater(BYTE_BARS_max_y, NEAR_CAP && CAP > LARGEST ? CAP / 1e6 : BYTES_max)
    width = wide(SMALLEST, most)
    set xrange [SMALLEST - 0.08 * width : most + 0.08 * width]
    set xtics nomirror step_for(width)
    set format x format_for(width)
    set ylabel 'BPB of the decoded artifact'
    if (NEAR_CAP) {
        set arrow 1 from first CAP / 1e6, graph 0 to first CAP / 1e6, graph 1 nohead dashtype 2 linewidth 1.2 linecolor rgb '#404040'
        set label 1 'cap 16,000,000 bytes' at first CAP / 1e6, graph 0.97 right offset character -0.6, 0 textcolor rgb '#404040'
    } else {
        set label 1 sprintf('cap: %.1f times the largest →', CAP / LARGEST) at screen 0.52, screen 1.0 - (0.55 + 0.42 * LINES) / HEIGHT right textcolor rgb '#404040'
    }
    plot 'front_means.tsv' using ($8 == 1 ? $2 / 1e6 : NaN):6 smooth unique with lines linewidth 1.0 dashtype 3 linecolor rgb '#9a9a9a', \
         for [v = 1:VARIANTS] 'front.tsv' index (v - 1) using ($1 / 1e6):3 with points pointtype hollow(v) pointsize 0.45 linewidth 0.8 linecolor rgb colour(v), \
         for [v = 1:VARIANTS] 'front_means.tsv' every ::(v - 1)::(v - 1) using ($2 / 1e6):6:($3 / 1e6):7 with xyerrorbars pointtype shape(v) pointsize 0.8 linewidth 1.2 linecolor rgb colour(v)
    unset label 1
    unset arrow 1
    unset ylabel
    set format y ''
    set lmargin at screen 0.555
    set rmargin at screen 0.985
    set xlabel 'training (s)'
    if (SIZES_BEYOND ne '') { set label 3 SIZES_BEYOND at screen 0.985, screen 1.0 - (0.55 + 0.42 * LINES) / HEIGHT right textcolor rgb '#404040' }
    width = wide(FASTEST, SLOWEST)
    set xrange [FASTEST - 0.08 * width : SLOWEST + 0.08 * width]
    set xtics nomirror step_for(width)
    set format x format_for(width)
    plot 'front_means.tsv' using ($9 == 1 ? $4 : NaN):6 smooth unique with lines linewidth 1.0 dashtype 3 linecolor rgb '#9a9a9a', \
         for [v = 1:VARIANTS] 'front.tsv' index (v - 1) using 2:3 with points pointtype hollow(v) pointsize 0.45 linewidth 0.8 linecolor rgb colour(v), \
         for [v = 1:VARIANTS] 'front_means.tsv' every ::(v - 1)::(v - 1) using 4:6:5:7 with xyerrorbars pointtype shape(v) pointsize 0.8 linewidth 1.2 linecolor rgb colour(v)
    unset multiplot
    unset output
}
