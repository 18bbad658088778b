/* The implementation of refparity/dump.h for the library's own use. It stands alone so that a program
 * which brings its own links that one. */
#define REFPARITY_DUMP_IMPLEMENTATION
#include "refparity/dump.h"
