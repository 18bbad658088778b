/* The default operations as a table. */
#include "operations/operations.h"

#define INSTALL(operation) .operation = rp_op_##operation,

const struct rp_ops *rp_ops_default(void)
{
    static const struct rp_ops ops = {.context = NULL, RP_OPERATIONS(INSTALL)};
    return &ops;
}
