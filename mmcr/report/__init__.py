"""What came out, for people to read: costs, comparisons, sketches, reports."""

from mmcr.report.pages.search_page import write_report

__all__ = ['write_report']
