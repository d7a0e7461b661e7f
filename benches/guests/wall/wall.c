/* How long a call of the wall clock takes through Solo5's own bindings: prints nanoseconds for each of CALLS. */

#include "solo5.h"

#define CALLS 2000

static volatile solo5_time_t last;

int solo5_app_main(const struct solo5_start_info *info)
{
    solo5_time_t begin, each;
    char digits[24], *at = digits + sizeof digits;
    int i;

    (void)info;
    begin = solo5_clock_monotonic();
    for (i = 0; i < CALLS; i++)
        last = solo5_clock_wall();
    each = (solo5_clock_monotonic() - begin) / CALLS;

    *--at = '\n';
    do {
        *--at = '0' + each % 10;
        each /= 10;
    } while (each != 0);
    solo5_console_write(at, digits + sizeof digits - at);
    return SOLO5_EXIT_SUCCESS;
}
