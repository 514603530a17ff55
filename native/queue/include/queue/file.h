/* The files of one directory, as the event log uses them: the seam where its tests put power cuts, full disks and failing
 * syncs. files_open is the real one. All functions: 0 or a count on success, negative errno on failure.
 *
 * What the log relies on, and no more: what was written is on the disk after sync of that file; a name made, changed or
 * removed is so on the disk after sync_directory; a write that was cut by a power loss left each of its sectors of 512
 * bytes as it was, as it should be, or as garbage, and no other sector touched. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR 512u

struct files;

struct file_operations {
    /* Calls `each` for every name, in any order. */
    int (*list)(struct files *files, void (*each)(void *context, const char *name), void *context);
    /* Returns a number for the file. create: it must not exist yet. */
    int (*open)(struct files *files, const char *name, int create);
    void (*close)(struct files *files, int file);
    /* Makes room on the disk for all of it, so that writing below `size` cannot meet a full disk. */
    int (*allocate)(struct files *files, int file, uint64_t size);
    int (*truncate)(struct files *files, int file, uint64_t size);
    int (*size)(struct files *files, int file, uint64_t *ret_size);
    /* All of it, or an error. */
    int (*write)(struct files *files, int file, const void *data, size_t size, uint64_t offset);
    /* Returns how much was there: less than size only at the end of the file. */
    int64_t (*read)(struct files *files, int file, void *data, size_t size, uint64_t offset);
    int (*sync)(struct files *files, int file);
    /* Replaces what has the new name. */
    int (*rename)(struct files *files, const char *from, const char *to);
    int (*remove)(struct files *files, const char *name);
    int (*sync_directory)(struct files *files);
};

struct files {
    const struct file_operations *operations;
    int directory;
    bool moves; /* this file system puts elsewhere what is written anew: room that was written to is none */
};

/* As the operation `read`, but what the disk cannot read (EIO) comes as zeros, sector by sector, and is counted. All that
 * the log keeps has a checksum: zeros are taken for nothing else. */
int64_t files_read_most(
    struct files *files, int file, void *data, size_t size, uint64_t offset, uint64_t *unreadable_bytes);
int files_write_zeros(struct files *files, int file, uint64_t size, uint64_t offset);
/* Takes the directory's descriptor. */
void files_open(struct files *ret_files, int directory);
