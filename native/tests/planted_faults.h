/* What is planted in the event log under power cuts; see planted_faults.c. Those of a lying disk: memory_files.h. */
#pragma once

#include "memory_files.h"

extern enum fault planted_fault;
