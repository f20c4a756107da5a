# power: the smallest difference that a suite finds with the asked power, against the number of seeds.
# gnuplot -c power.gp settings.gp, in the folder of the data.
load ARG1
FIGURE = 'power'
WIDTH = 11.5
HEIGHT = 6.6
do for [FORMAT in 'pdf png svg'] {
    load STYLE
    set logscale xy
    set xrange [1.8 : 55]
    set xtics (2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50)
    set format y '%.1g'
    set xlabel 'seeds'
    set ylabel METRIC
    set key top right
    plot 'power.tsv' using 1:2 with linespoints pointtype shape(1) pointsize 0.6 dashtype dash(1) linecolor rgb colour(1) title 'one comparison', \
         (FAMILY > 1 ? 'power.tsv' : '/dev/null') using 1:3 with linespoints pointtype shape(2) pointsize 0.6 dashtype dash(2) linecolor rgb colour(2) title sprintf('in a family of %d', FAMILY), \
         (MARGIN > 0 ? MARGIN : NaN) with lines dashtype dash(3) linecolor rgb colour(3) title 'margin'
    unset output
}
