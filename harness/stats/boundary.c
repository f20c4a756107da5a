/* boundary: stopping boundaries of t by recursive quadrature; see boundary.h. */
#include "harness/stats/boundary.h"

#include <gsl/gsl_integration.h>
#include <gsl/gsl_sf_gamma.h>
#include <math.h>
#include <stdbool.h>

#include "harness/stats/stats.h"

enum { CHEBYSHEV = 24, GAUSS = 32, SHORT = 12, MOST_PIECES = 3, NEWTON_STEPS = 60 };
static const double FAR = 8.0; /* standard deviations beyond which a density counts as 0: exp(-32) of its top */

/* A function of the square of the angle between two angles. */
struct piece {
    double low, high, coefficients[CHEBYSHEV];
};

/* What is known at a look: the probability that no earlier one has stopped, given the angle here. */
struct look_state {
    double n, angle;          /* seeds; the boundary as an angle */
    int pieces, kinks;        /* no pieces: the probability is 1 everywhere */
    double kink[MOST_PIECES]; /* tangents of the angles at which it is not smooth, ascending */
    struct piece piece[MOST_PIECES];
};

/* From a look of m seeds to one of n: what the integrals share. */
struct transition {
    const struct look_state *from;
    double n, m, r;                                    /* r = n - m */
    double scale;                                      /* of the densities */
    const gsl_integration_glfixed_table *rule, *brief; /* of GAUSS points; of SHORT, for short distances */
};

/* --- polynomials -------------------------------------------------------------------------------------------------- */

static double chebyshev_angle(const struct piece *p, int node) {
    double low = p->low * p->low, high = p->high * p->high, x = cos(M_PI * (node + 0.5) / CHEBYSHEV);
    return sqrt(0.5 * (low + high) + 0.5 * (high - low) * x);
}

static void chebyshev_fit(struct piece *p, const double *values) {
    for (int k = 0; k < CHEBYSHEV; k++) {
        double sum = 0.0;
        for (int i = 0; i < CHEBYSHEV; i++) sum += values[i] * cos(M_PI * k * (i + 0.5) / CHEBYSHEV);
        p->coefficients[k] = (k ? 2.0 : 1.0) * sum / CHEBYSHEV;
    }
}

static double chebyshev_value(const struct piece *p, double angle) { /* Clenshaw */
    double low = p->low * p->low, high = p->high * p->high, x = (2.0 * angle * angle - low - high) / (high - low);
    double one = 0.0, two = 0.0;
    for (int k = CHEBYSHEV - 1; k > 0; k--) {
        double next = 2.0 * x * one - two + p->coefficients[k];
        two = one;
        one = next;
    }
    return x * one - two + p->coefficients[0];
}

static double unstopped(const struct look_state *s, double angle) {
    angle = fabs(angle);
    for (int i = 0; i < s->pieces; i++)
        if (angle <= s->piece[i].high || i + 1 == s->pieces) return chebyshev_value(&s->piece[i], angle);
    return 1.0;
}

/* --- one look back ---------------------------------------------------------------------------------------------------
 *
 * Given the angle here, the contrast of the new seeds with the old ones has the angle psi, of density cos^(n-3), and
 * what is left of the sum of squares is shared by eta, of density cos^(m-2) sin^(r-2), between the old and the new (all
 * is the old's for one new seed). The angle at the earlier look is then
 *
 *   tan(before) = (sqrt(m) tan(angle) + sqrt(r) sin(psi)) / (sqrt(n) cos(psi) cos(eta)) */

struct range {
    double low, high;
};

/* The psi at which |tan(before)| cos(eta) is below a tangent; none: false. */
static bool reachable(const struct transition *t, double here, double tangent, struct range *psi) {
    double sine = sqrt(t->m) * here / sqrt(t->r + tangent * tangent * t->n);
    if (!(sine < 1.0)) return false;
    double delta = atan2(tangent * sqrt(t->n), sqrt(t->r)), beta = asin(sine), sum = beta + delta;
    *psi = (struct range){sum <= M_PI_2 ? -sum : sum - M_PI, delta - beta};
    return true;
}

/* The eta up to which some psi is reachable. */
static double last_eta(const struct transition *t, double here, double tangent) {
    double excess = t->m * here * here - t->r;
    if (!(excess > 0.0)) return M_PI_2;
    double cosine = sqrt(excess / t->n) / tangent;
    return cosine < 1.0 ? acos(cosine) : 0.0;
}

/* Points that cut a range into parts in which the integrand is smooth, ascending; room for two a kink. */
struct cuts {
    int count;
    double at[2 * MOST_PIECES + 2];
};

static void cut(struct cuts *c, double at, struct range range) {
    if (!(at > range.low && at < range.high)) return;
    int i = c->count++;
    for (; i > 0 && c->at[i - 1] > at; i--) c->at[i] = c->at[i - 1];
    c->at[i] = at;
}

/* Without what lies far from the centre of the density; what then is left is cut in the middle of it, as a bell takes
 * more points than its flank. */
static struct range clip(struct range range, double centre, double sd, struct cuts *cuts) {
    struct range near = {fmax(range.low, centre - FAR * sd), fmin(range.high, centre + FAR * sd)};
    if (near.low > range.low || near.high < range.high) cut(cuts, centre, near);
    return near;
}

static double power(double base, double exponent) { /* a whole number; below 0 it stands for no factor */
    double product = 1.0;
    for (long left = (long)exponent; left > 0; left >>= 1, base *= base)
        if (left & 1) product *= base;
    return product;
}

static double sum_psi(const struct transition *t, double here, double cosine, double low, double high) {
    double sum = 0.0;
    for (size_t i = 0; i < GAUSS; i++) {
        double psi, weight;
        gsl_integration_glfixed_point(low, high, i, &psi, &weight, t->rule);
        double share = cos(psi), slope = (sqrt(t->m) * here + sqrt(t->r) * sin(psi)) / (sqrt(t->n) * share * cosine);
        sum += weight * power(share, t->n - 3.0) * unstopped(t->from, atan(slope));
    }
    return sum;
}

static double integrate_psi(const struct transition *t, double here, double cosine) {
    struct range all, inside;
    struct cuts cuts = {0};
    if (!reachable(t, here, tan(t->from->angle) * cosine, &all)) return 0.0;
    if (t->n > 3.5) all = clip(all, 0.0, 1.0 / sqrt(t->n - 3.0), &cuts);
    if (!(all.high > all.low)) return 0.0;
    for (int k = 0; k < t->from->kinks; k++) {
        if (!reachable(t, here, t->from->kink[k] * cosine, &inside)) continue;
        cut(&cuts, inside.low, all);
        cut(&cuts, inside.high, all);
    }
    cuts.at[cuts.count++] = all.high;
    double sum = 0.0, low = all.low;
    for (int c = 0; c < cuts.count; low = cuts.at[c++]) sum += sum_psi(t, here, cosine, low, cuts.at[c]);
    return sum;
}

/* eta = middle + half sin(x): the square root at the end of what is reachable becomes smooth. */
static double sum_eta(const struct transition *t, double here, double low, double high) {
    double middle = 0.5 * (low + high), half = 0.5 * (high - low), sum = 0.0;
    for (size_t i = 0; i < GAUSS; i++) {
        double x, weight;
        gsl_integration_glfixed_point(-M_PI_2, M_PI_2, i, &x, &weight, t->rule);
        double eta = middle + half * sin(x);
        sum += weight * half * cos(x) * power(cos(eta), t->m - 2.0) * power(sin(eta), t->r - 2.0) *
               integrate_psi(t, here, cos(eta));
    }
    return sum;
}

/* The probability that no look before this one has stopped, given the angle here by its tangent. */
static double unstopped_before(const struct transition *t, double here) {
    if (t->r < 1.5) return t->scale * integrate_psi(t, here, 1.0);
    struct range all = {0.0, last_eta(t, here, tan(t->from->angle))};
    double old = sqrt(fmax(t->m - 2.0, 0.0)), new = sqrt(t->r - 2.0);
    struct cuts cuts = {0};
    if (old + new > 0.0) all = clip(all, atan2(new, old), 1.0 / (old + new), &cuts);
    if (!(all.high > all.low)) return 0.0;
    for (int k = 0; k < t->from->kinks; k++) cut(&cuts, last_eta(t, here, t->from->kink[k]), all);
    cuts.at[cuts.count++] = all.high;
    double sum = 0.0, low = all.low;
    for (int c = 0; c < cuts.count; low = cuts.at[c++]) sum += sum_eta(t, here, low, cuts.at[c]);
    return t->scale * sum;
}

/* --- one look forward --------------------------------------------------------------------------------------------- */

static double beta_scale(double a, double b) { return exp(-gsl_sf_lnbeta(a, b)); }

static struct transition transition_to(const struct look_state *from, size_t n) {
    struct transition t = {.from = from, .n = (double)n, .m = from->n, .r = (double)n - from->n};
    t.scale = beta_scale(0.5, 0.5 * (t.n - 2.0));
    if (t.r > 1.5) t.scale *= 2.0 * beta_scale(0.5 * (t.m - 1.0), 0.5 * (t.r - 1.0));
    return t;
}

/* Not smooth: where the first seeds may all be 0, and where the kinks of the look before just come into reach. */
static void find_kinks(const struct transition *t, struct look_state *to) {
    double limit = tan(to->angle), found[MOST_PIECES + 1];
    int count = 0;
    found[count++] = sqrt(t->r / t->m);
    for (int k = 0; k < t->from->kinks && count < MOST_PIECES; k++)
        found[count++] = sqrt((t->r + t->from->kink[k] * t->from->kink[k] * t->n) / t->m);
    to->kinks = 0;
    for (int k = 0; k < count && to->kinks < MOST_PIECES - 1; k++)
        if (found[k] < 0.999 * limit) to->kink[to->kinks++] = found[k];
}

static void fit_pieces(const struct transition *t, struct look_state *to) {
    double low = 0.0, values[CHEBYSHEV];
    find_kinks(t, to);
    to->pieces = to->kinks + 1;
    for (int p = 0; p < to->pieces; p++) {
        struct piece *piece = &to->piece[p];
        piece->low = low;
        piece->high = low = p < to->kinks ? atan(to->kink[p]) : to->angle;
        for (int i = 0; i < CHEBYSHEV; i++) values[i] = unstopped_before(t, tan(chebyshev_angle(piece, i)));
        chebyshev_fit(piece, values);
    }
}

static double angle_of(double t, double n) { return atan(t / sqrt(n - 1.0)); }
/* What is too rare for a double is out of reach: the tangent of a right angle. */
static double upper_t(double p, double n) {
    double t = p > 0.0 ? -student_quantile(0.5 * p, n - 1.0) : INFINITY;
    return t < tan(M_PI_2) ? t : tan(M_PI_2);
}

/* Density of the angle at a look, both sides. */
static double density(double n, double angle) {
    return 2.0 * beta_scale(0.5, 0.5 * (n - 1.0)) * power(cos(angle), n - 2.0);
}

/* The angle beyond which some earlier look has stopped for sure, for a tangent there. */
static double angle_in_reach(const struct transition *t, double tangent) {
    return atan(sqrt((t->r + tangent * tangent * t->n) / t->m));
}

/* The probability that no earlier look has stopped and the angle here is between two. */
static double stop_between(const struct transition *t, const gsl_integration_glfixed_table *rule, double low,
                           double high) {
    struct cuts cuts = {0};
    double sum = 0.0;
    cut(&cuts, atan(sqrt(t->r / t->m)), (struct range){low, high});
    for (int k = 0; k < t->from->kinks; k++) cut(&cuts, angle_in_reach(t, t->from->kink[k]), (struct range){low, high});
    cuts.at[cuts.count++] = high;
    for (int c = 0; c < cuts.count; low = cuts.at[c++])
        for (size_t i = 0; i < rule->n; i++) { /* the square root at the end of the reach becomes smooth */
            double x, weight, half = 0.5 * (cuts.at[c] - low);
            gsl_integration_glfixed_point(-M_PI_2, M_PI_2, i, &x, &weight, rule);
            double at = low + half + half * sin(x);
            sum += weight * half * cos(x) * density(t->n, at) * unstopped_before(t, tan(at));
        }
    return sum;
}

/* A bracket: a look alone stops at least as often as it is the first to stop, and at most as often as any so far. */
struct bracket {
    double low, high;
};

/* Newton's method: from an angle at which this look is the first to stop with probability first, to one at which that
 * is share. On the way only what lies between two angles is integrated. */
static double walk(const struct transition *t, struct bracket b, double angle, double first, double share) {
    for (int step = 0; step < NEWTON_STEPS; step++) {
        *(first > share ? &b.low : &b.high) = angle;
        double slope = density(t->n, angle) * unstopped_before(t, tan(angle));
        double next = slope > 0.0 ? angle + (first - share) / slope : b.low;
        if (!(next > b.low && next < b.high)) next = 0.5 * (b.low + b.high);
        if (fabs(next - angle) <= 1e-12 * angle) return next;
        first += next < angle ? stop_between(t, t->brief, next, angle) : -stop_between(t, t->brief, angle, next);
        angle = next;
    }
    return angle;
}

static double find_boundary(const struct transition *t, double spent, double before) {
    double share = spent - before, end = angle_in_reach(t, tan(t->from->angle));
    double far = fmin(angle_of(upper_t(1e-13 * share, t->n), t->n), end);
    struct bracket b = {angle_of(upper_t(spent, t->n), t->n), fmin(angle_of(upper_t(share, t->n), t->n), end)};
    double angle = 0.5 * (b.low + b.high);
    for (int round = 0; round < 2; round++) /* the second ends within what the long rule resolves */
        angle = walk(t, b, angle, stop_between(t, t->rule, angle, far), share);
    return angle;
}

/* Each boundary rests on those before it. */
static void find_all(const gsl_integration_glfixed_table *rule, const gsl_integration_glfixed_table *brief,
                     const size_t *n, const double *spent, int count, double *boundary) {
    struct look_state before = {.n = (double)n[0]};
    boundary[0] = upper_t(spent[0], before.n);
    before.angle = angle_of(boundary[0], before.n);
    for (int k = 1; k < count; k++) {
        struct look_state here = {.n = (double)n[k]};
        struct transition t = transition_to(&before, n[k]);
        t.rule = rule;
        t.brief = brief;
        here.angle = find_boundary(&t, spent[k], spent[k - 1]);
        boundary[k] = tan(here.angle) * sqrt(here.n - 1.0);
        if (k + 1 < count) fit_pieces(&t, &here);
        before = here;
    }
}

status boundary_of_t(const size_t *n, const double *spent, int count, double *boundary) {
    gsl_integration_glfixed_table *rule = gsl_integration_glfixed_table_alloc(GAUSS);
    gsl_integration_glfixed_table *brief = gsl_integration_glfixed_table_alloc(SHORT);
    if (rule && brief) find_all(rule, brief, n, spent, count, boundary);
    bool failed = !rule || !brief;
    if (rule) gsl_integration_glfixed_table_free(rule);
    if (brief) gsl_integration_glfixed_table_free(brief);
    return failed ? status_new(STATUS_SYSTEM, "out of memory for the boundaries of %d looks", count) : NULL;
}
