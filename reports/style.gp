# style: one look for all figures: Latin Modern, blues and greys that differ in lightness, dash and point shape.
# Expects FORMAT (pdf, png or svg), FIGURE, WIDTH and HEIGHT in cm. Text is never interpreted (noenhanced).
reset
set encoding utf8
if (FORMAT eq 'pdf') {
    set terminal pdfcairo noenhanced color font 'Latin Modern Roman,9' fontscale 0.62 size WIDTH cm, HEIGHT cm linewidth 1 rounded
}
if (FORMAT eq 'png') {
    set terminal pngcairo noenhanced color font 'Latin Modern Roman,9' fontscale 1.55 size WIDTH * 100, HEIGHT * 100 linewidth 2.6 pointscale 2 rounded
}
if (FORMAT eq 'svg') {
    set terminal svg noenhanced font 'Latin Modern Roman,12' size WIDTH * 38, HEIGHT * 38 linewidth 1 rounded
}
set output FIGURE . '.' . FORMAT

array COLOUR[6] = ['#12263f', '#2f6fb0', '#8a8a8a', '#7fb2e5', '#4a4a4a', '#1f9e9e']
array DASH[6] = [1, 2, 3, 4, 5, 6]
array SHAPE[6] = [7, 5, 9, 13, 11, 15]
array HOLLOW[6] = [6, 4, 8, 12, 10, 14]
colour(i) = COLOUR[(i - 1) % 6 + 1]
# Beyond six, the combination of colour with shape or dash is new.
turned(i) = (i - 1 + floor((i - 1) / 6)) % 6 + 1
shape(i) = SHAPE[turned(i)]
hollow(i) = HOLLOW[(i - 1) % 6 + 1]
dash(i) = DASH[turned(i)]

set border 3 linewidth 0.6 linecolor rgb '#404040'
set tics nomirror out scale 0.5
set grid xtics ytics linewidth 0.5 linecolor rgb '#d4d4d4' dashtype 1
set key noautotitle samplen 2.6 spacing 1.05 textcolor rgb '#202020'
# A round step that puts about four tics on a range.
power_of(r) = 10.0 ** floor(log10(r / 4.0))
step_for(r) = (r / 4.0 / power_of(r) < 1.5 ? 1 : r / 4.0 / power_of(r) < 3.5 ? 2 : r / 4.0 / power_of(r) < 7.5 ? 5 : 10) * power_of(r)
format_for(r) = sprintf('%%.%df', step_for(r) >= 1 ? 0 : ceil(-log10(step_for(r)) - 1e-9))
set minussign
set style textbox opaque noborder margins 0.4, 0.4 # of what lies beyond an axis, which lines may lead to
set datafile separator tab
set datafile missing 'NaN'

# Where a legend beside the plot starts, for names of so many letters. gnuplot would not leave long ones enough room.
legend_left(letters) = 0.93 - 0.0112 * letters

# The label of a tick is a format: a per cent sign in a name is doubled.
tick(name) = strstrt(name, '%') ? name[1:strstrt(name, '%')] . '%' . tick(name[strstrt(name, '%') + 1:*]) : name
